"""The tested package behind the book "Residual Networks, Measured".

Where the code of a chapter is, and which runs it has in ``recorded``; names on one line belong together. The
chapters are degradation (1), blocks, bottleneck, resnet18, tables, selfsupervised, detection, transformers,
casting and waveforms (10)::

     models               data              objectives           experiments        recorded
  1  resnet, blocks       cifar10           classification       degradation        degradation, depths,
                                                                                    starts, learning_rates
     resnet, blocks       cifar10           classification       optimisation       gradients, identity
  2  resnet, blocks       cifar10           classification       degradation        block_order
     resnet, blocks       cifar10           classification       optimisation       lesion
  3  resnet, blocks, cost -                 -                    -                  -
  4  resnet, resnet9      cifar10           classification       classifier         classifier, recipe
  5  tabular,             tables            tables, encoding     tables             tables, table_depth,
     tabular_baselines                                                              table_depth_long
  6  masked_resnet        security          selfsupervised,      self_supervised,   self_supervised
                                            event_features       event_data
     masked_resnet        synthetic_events  selfsupervised       neighbor_search    neighbor_search
  7  masked_resnet        security,         selfsupervised,      event_detection,   event_detection
                          synthetic_events  event_features       event_data
     lstm                 sessions          next_event           event_sequences    event_sequences
  8  tabular_baselines    tables            tables               tables             tables, table_duel,
                                                                                    tables_longer,
                                                                                    tab_transformer
     tabular_baselines    tables            tables               table_embeddings   table_embeddings,
                                                                                    table_rivals,
                                                                                    table_realmlp,
                                                                                    table_large
  9  autoencoders,        casting           reconstruction,      casting,           casting,
     resnet, resnet9                        synthetic_anomalies  casting_detectors  casting_ablation
     resnet               casting           synthetic_anomalies  casting_controls   casting_controls
 10  autoencoders         ecg               reconstruction       waveforms          waveforms
     autoencoders         skab              reconstruction       -                  -

All nets are trained by ``training.fit``, which ``experiments.base.Context`` and ``estimators`` call; the
autoencoders are in ``estimators.autoencoders``. What is unusual is found with ``detection`` (numbers in,
numbers out), and on data of your own with ``estimators``. Imports only go down: the command line and the
chapters above the experiments, these above estimators, training, objectives and detection, and those above
data and models. What readers can play with in the pages is made by ``pieces``.
"""

__version__ = "0.1.0"
