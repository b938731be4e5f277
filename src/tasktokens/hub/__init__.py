"""The Hugging Face Hub: addresses, downloads into its cache, uploads in one commit, cards.

Only files of pictures, arrays, tables, JSON and safetensors are downloaded; nothing that comes from there is executed.
"""
