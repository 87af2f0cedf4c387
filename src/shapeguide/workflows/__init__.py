"""What a user does in one call and several rooms work on."""
