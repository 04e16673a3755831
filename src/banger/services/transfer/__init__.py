"""Files into guests and out of them."""
