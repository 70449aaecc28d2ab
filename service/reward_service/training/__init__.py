"""Reward models from preferences: data, tokenizer, language-model warm-up, Bradley-Terry."""
