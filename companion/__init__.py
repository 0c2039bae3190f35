"""The tested package behind the book "Residual Networks, Measured".

Where the code of a chapter is, in the folders ``models``, ``data``, ``objectives`` and ``experiments``, and
which runs it has in ``recorded``::

     models             data             objectives           experiments      recorded
  1  resnet             cifar10          classification       degradation      degradation, learning_rates
                                                              optimisation     starts
  2  blocks             cifar10          classification       degradation      block_order
                                                              optimisation     lesion
  3  blocks, cost       -                -                    -                -
  4  resnet, resnet9    cifar10          classification       classifier       classifier, recipe
  5  tabular            tables           tables, encoding     tables           tables, table_depth
  6  masked_resnet      security         selfsupervised       self_supervised  self_supervised
  7  lstm               security         next_event           event_detection  event_detection
                                                              event_sequences  event_sequences
  8  tabular_baselines  tables           tables               tables           tab_transformer
                                                              table_embeddings table_embeddings
  9  autoencoders       casting, images  reconstruction       casting          casting, casting_ablation
     resnet9                             synthetic_anomalies  casting_controls casting_controls
 10  autoencoders       ecg, skab        reconstruction       waveforms        waveforms

All nets are trained by ``training``; what is unusual is found with ``detection`` (numbers in, numbers out),
and on data of your own with ``estimators``. Imports only go down: the command line and the chapters above the
experiments, these above estimators, training, objectives and detection, and those above data and models.
"""

__version__ = "0.1.0"
