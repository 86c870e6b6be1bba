"""The article's workflow against real services: refund what a ticket asks for, then close it."""
