"""The lecture: its quiz, its network taken literally, and how the gradient fades with the lag."""
