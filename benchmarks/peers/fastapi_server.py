"""A hand-written loop: python fastapi_server.py PORT"""

import sys

import uvicorn
from classifier import Classifier
from fastapi import FastAPI

app, classify = FastAPI(), Classifier()


@app.post("/predict")
def predict(body: dict[str, list[str]]) -> dict[str, list[list[float]]]:
    return {"logits": classify(body["texts"])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", loop="uvloop")
