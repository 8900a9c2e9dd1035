"""SageMaker: a training job for each run."""
