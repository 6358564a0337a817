"""Words that are neighbours in the test's word vectors."""

GROUPS = (
    ("film", "movie", "picture", "Cinema"),
    ("funny", "hilarious", "amusing", "witty"),
    ("boy", "girl", "child", "kid"),
    ("ran", "walked", "went", "hurried"),
)
