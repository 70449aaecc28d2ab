"""The check before serving: a model's scores of a few known conversations are those that the model really gives."""
