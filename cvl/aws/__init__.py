"""What AWS services have to do with a training job: one noun a file. boto3 is loaded on use."""
