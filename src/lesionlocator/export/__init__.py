"""What other programs read: DICOM segmentations, reports and contours, NRRD label maps, and rows for trials."""
