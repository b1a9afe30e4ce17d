"""From a spec to a model in memory: its definition, its weights, its checkpoints."""
