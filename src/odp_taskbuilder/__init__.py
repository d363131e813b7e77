"""odp-task: builds federated learning tasks for Android's On-Device Personalization."""
