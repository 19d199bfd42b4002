"""One module per trainer: the reward, with the signature that the trainer calls."""
