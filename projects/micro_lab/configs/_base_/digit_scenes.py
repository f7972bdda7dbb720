# Datasets of digit scenes for each toolbox. To write the scenes:
#   python -m projects.micro_lab.make_digit_scenes data/digit_scenes
# The configs of the tasks add the pipelines.
root = '{{$KPU_MM_DIGITS:data/digit_scenes}}'
words = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')

digits_detection = dict(
    type='kpu_mm.CocoDataset', _scope_='mmdet', data_root=root, metainfo=dict(classes=words)
)
digits_detection_train = dict(
    **digits_detection, ann_file='train/instances.json', data_prefix=dict(img='train/images')
)
digits_detection_test = dict(
    **digits_detection,
    ann_file='test/instances.json',
    data_prefix=dict(img='test/images'),
    test_mode=True,
)

# Class 0 is the background.
digits_segmentation = dict(
    type='BaseSegDataset',
    _scope_='mmseg',
    data_root=root,
    img_suffix='.png',
    metainfo=dict(classes=('background', *words)),
)
digits_segmentation_train = dict(
    **digits_segmentation, data_prefix=dict(img_path='train/images', seg_map_path='train/semantic')
)
digits_segmentation_test = dict(
    **digits_segmentation,
    data_prefix=dict(img_path='test/images', seg_map_path='test/semantic'),
    test_mode=True,
)

# The class is that of the dominant digit.
digits_classification = dict(
    type='CustomDataset', _scope_='mmpretrain', data_root=root, metainfo=dict(classes=words)
)
digits_classification_train = dict(
    **digits_classification, ann_file='train/labels.txt', data_prefix='train/images'
)
digits_classification_test = dict(
    **digits_classification, ann_file='test/labels.txt', data_prefix='test/images', test_mode=True
)

# Images without labels, which are composed when they are read.
digits_unlabelled = dict(type='kpu_mm.DigitSceneSource', split='train', seed=0, count=20000)
