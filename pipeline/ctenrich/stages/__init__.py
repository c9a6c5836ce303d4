"""The stages of a series and of a product, and the table that says what each depends on."""
