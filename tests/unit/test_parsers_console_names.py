"""Lines with metrics of tools that are not read are named, and other text is not."""

from __future__ import annotations

import pytest

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.other_tools import name_tool

NAMED = {
    "[2022/02/22 07:58:05] ppocr INFO: epoch: [1/500], global_step: 10, lr: 0.1, loss: 6.5": (
        "PaddleOCR"
    ),
    "[2022/02/22 07:58:05] ppocr INFO: cur metric, precision: 0.5, recall: 0.5": "PaddleOCR",
    "[2021/10/13 10:00:01] ppcls INFO: [Train][Epoch 1/120][Iter: 0/312]lr: 0.1, loss: 4.5": (
        "PaddleClas"
    ),
    "2021-10-13 10:00:01 [INFO]\t[TRAIN] epoch: 1, iter: 10/1000, loss: 2.5, lr: 0.1": "PaddleSeg",
    "2021-10-13 10:00:01 [INFO]\t[EVAL] #Images: 500 mIoU: 0.5 Acc: 0.5": "PaddleSeg",
    "[2021-10-13 10:00:01 swin] (main.py 210): INFO Train: [0/300][10/1251]\teta 1:00 loss 6.9": (
        "Swin Transformer"
    ),
    "2024-05-01 10:00:01 host:0 olmo.train:967 INFO [step=10/739328,epoch=0]": "OLMo",
    "    train/CrossEntropyLoss=11.25": "OLMo",
    "[batch=10/1000]:": "Composer",
    "\t Train loss/train/total: 2.5000": "Composer",
    "\t Eval metrics/eval/Accuracy: 0.5": "Composer",
    "step    1/19560 | loss 11.0 (+nanz)| norm 15.3 (+nanz)| lr 8e-07 | 3000 ms": "llm.c",
    "step:125/1750 val_loss:4.5 train_time:250ms step_avg:2.5ms": "modded-nanogpt",
    "Epoch 1 | iter 10 step 1 | loss train: 1.250, val: n/a | iter time: 500.5 ms": "LitGPT",
    "completed step: 10, seconds: 0.5, TFLOP/s/device: 100, loss: 10.25": "MaxText",
    "INFO:tensorflow:loss = 2.5, step = 100 (0.5 sec)": "TensorFlow",
    "INFO:tensorflow:global_step/sec: 200.5": "TensorFlow",
    "I0501 10:00:01.5 139 logging_writer.py:48] [100] accuracy=0.5, lr=0.1": "Flax's examples",
    "INFO:root:Epoch[0] Batch [20]\tSpeed: 1000.5 samples/sec\taccuracy=0.5": "MXNet",
    "I0501 10:00:01 1 solver.cpp:228] Iteration 100 (5 iter/s, 20s/100 iters), loss = 0.5": "Caffe",
    "2024-05-01 | INFO | epoch: 1/300, iter: 10/1000, mem: 5000Mb, total_loss: 10.5": "YOLOX",
    " 1000: 0.5, 0.625 avg loss, 0.001 rate, 2.5 seconds, 64000 images": "Darknet",
    "[2024-05-01 10:00:01,1 INFO] Step 50/100000; acc: 5.5; ppl: 1200.5; lr: 0.1": "OpenNMT",
    "[node] 2024-05-01 10:00:01 (trainer:762) INFO: 1epoch:train:1-50batch: loss=5.5": "ESPnet",
    "2024-05-01 INFO [train.py:895] Epoch 1, batch 50, loss[loss=0.5, over 10 frames.]": "icefall",
    "2024-05-01 10:00:01 DEBUG TRAIN Batch 0/100 loss 10.25 loss_att 9.5": "WeNet",
    "epoch: 1, lr: 1.00e+00 - train loss: 1.25 - valid loss: 1.0, valid WER: 50": "SpeechBrain",
    "2024-05-01 10:00:01 epoch 1 - iter 10/100 - loss 1.5 - time (sec): 1.25": "Flair",
    "accuracy: 0.5, loss: 0.6900 ||:  50%": "AllenNLP",
    "E    #       LOSS TOK2VEC  LOSS TAGGER  TAG_ACC  SCORE": "spaCy",
    "epoch     train_loss  valid_loss  accuracy  time": "fastai",
    "|    ep_rew_mean     | 10.25    |": "Stable-Baselines3",
    "step:1 - actor/entropy_loss:0.5 - actor/pg_loss:-0.25 - critic/score:0.5": "verl",
    "[10]\ttrain-rmse:0.5\teval-rmse:0.625": "XGBoost",
    "[10]\tvalid_0's auc: 0.9": "LightGBM",
    "10:\tlearn: 0.69\ttotal: 50ms\tremaining: 5s": "CatBoost",
    "[05/01 10:00:01 d2.evaluation.testing]: copypaste: 1,2": "Detectron2's results",
    "Test: [   0/48]  Time: 0.512 (0.512)  Loss:   1.250": "a validation's batches",
    "Test (EMA): [   0/48]  Time: 0.512 (0.512)  Loss:   1.250": "a validation's batches",
}


@pytest.mark.parametrize("line", NAMED)
def test_a_tool_is_named(line):
    """The line gives no record, and is neither damage nor silence."""
    context = FileContext(zone="UTC")
    assert [] == parse_line(line.encode(), context)
    assert {"not_a_record"} >= {*context.skipped}
    assert NAMED[line] in name_tool(line.encode())


@pytest.mark.parametrize(
    "line",
    [
        "Train set: 50000 pictures",
        "[1]\tready",
        "it's done: 100",
        "total: 5 files",
        "Step 5 of the installation",
        "training/validation split: 0.9",
        "copypaste: ",
        "Eval started: 2 workers",
    ],
)
def test_text_is_no_tools(line):
    """However much it looks like one's."""
    assert name_tool(line.encode()) is None
