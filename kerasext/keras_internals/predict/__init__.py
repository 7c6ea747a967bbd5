"""The loop of `model.predict`, its steps, and what stands in for them."""
