"""What a teacher server and a trainer agree on: the contract, the codecs, the keys, the errors."""
