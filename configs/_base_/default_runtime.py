default_scope = 'mmengine'
custom_imports = dict(imports=['kpu_mm'])
runner_type = 'kpu_mm.KPURunner'

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    # Seconds that ranks wait for each other: one node may read its image index
    # while another scans 15 M files, at 700 a second in this time. A rank that
    # ends with an error ends all others at once, whatever stands here.
    dist_cfg=dict(backend='nccl', timeout=6 * 3600),
)
randomness = dict(seed=0)
model_wrapper_cfg = dict(type='kpu_mm.KPUDistributedDataParallel')

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Several: --resume passes over a newest one that is damaged.
    checkpoint=dict(
        type='kpu_mm.AtomicCheckpointHook', by_epoch=False, interval=1000, max_keep_ckpts=3
    ),
    # Before training, for models with a normalizer.
    normalizer_fit=dict(type='kpu_mm.NormalizerFitHook'),
    # Operators for the GPU, and shared memory for the workers.
    machine=dict(type='kpu_mm.MachineCheckHook'),
    second_loss=dict(type='kpu_mm.SecondLossHook'),
    # Order and transforms are seeded by position, not by epoch.
    sampler_seed=None,
)
custom_hooks = [
    dict(type='kpu_mm.NonFiniteHook'),
    dict(type='kpu_mm.SkippedImagesHook'),
    dict(type='kpu_mm.FeaturePCAHook', interval=1000),
]

# Further backends: TensorboardVisBackend, WandbVisBackend.
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends)
log_processor = dict(by_epoch=False)
log_level = 'INFO'
load_from = None
# True resumes from load_from; 'auto' from the newest checkpoint of the work
# directory, and starts from the weights of load_from if there is none.
resume = False
# Whose rate and schedules hold after --resume; or 'config', for another rate.
resume_schedule = 'checkpoint'
