"""What is made wrong on purpose, so that something can be learnt or tested from it."""
