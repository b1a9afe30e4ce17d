"""What several families share: options, made-up inputs, random weights."""
