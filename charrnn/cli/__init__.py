"""The command line. The only package that imports typer, rich and tqdm."""
