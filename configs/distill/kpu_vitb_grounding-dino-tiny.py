# The smaller GroundingDINO (Swin-T), which has not seen COCO.
_base_ = './kpu_vitb.py'
model = dict(teachers=dict(grounding_dino=dict(source='IDEA-Research/grounding-dino-tiny')))
