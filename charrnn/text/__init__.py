"""Reading text: characters and their indices, texts from files, and the batches cut from them."""
