"""What is added to moto's Step Functions interpreter, and the EventBridge rules on executions."""
