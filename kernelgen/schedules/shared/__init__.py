"""What several schedules share: limits of a GPU, cost and register models, tiles of the batch, dR and db."""
