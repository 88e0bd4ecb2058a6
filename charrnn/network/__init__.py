"""The mathematics: a recurrent network and its gradients in NumPy. No files, no screen, no clock."""
