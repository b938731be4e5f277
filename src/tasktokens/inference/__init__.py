"""What a trained model is used for: predict, evaluate, explain and discover."""
