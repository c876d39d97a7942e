"""The plan's UNet and the heads that only training needs."""
