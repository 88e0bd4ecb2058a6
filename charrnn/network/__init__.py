"""The mathematics: a recurrent network and its gradients in NumPy; no files, output or clock."""
