"""Five hundred refunds with scripted mistakes; every bad outcome is caught, undone or escalated."""
