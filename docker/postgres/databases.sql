-- Run once, on an empty volume: MLflow keeps its tables apart from Dagster's, in the same server.
CREATE DATABASE mlflow;
