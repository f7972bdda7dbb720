# The distilled student, and the teachers whose text encoders and decoders it
# is put before. The run's config is the one that MMEngine left beside the
# checkpoint; a folder of tools/export.py may be the source too.
student = dict(type='kpu_mm.ProjectedBackbone', source='work_dirs/kpu_vitb/iter_40000.pth')
# as in _base_/models/kpu_vitb.py
clip = dict(model='ViT-B-16-quickgelu', pretrained='openai')
grounding_dino = dict(source='IDEA-Research/grounding-dino-base')
# embeddings of class names, for the next run
text_cache = 'work_dirs/text_embeddings'
