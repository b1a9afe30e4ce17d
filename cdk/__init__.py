"""The CDK part: constructs (one concept a file), stacks that only compose them, and the guards of the app."""
