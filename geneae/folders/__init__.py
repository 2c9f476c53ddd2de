"""Files and folders on disk: outputs, models, runs, model cards, archives and embeddings."""
