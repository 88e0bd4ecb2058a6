"""What a person sees: commands, progress, tables. The only room that imports typer, rich and tqdm."""
