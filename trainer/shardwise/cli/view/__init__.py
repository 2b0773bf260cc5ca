"""What the commands show: pure functions from objects of the API to lines of text."""
