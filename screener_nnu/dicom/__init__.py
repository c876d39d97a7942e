"""DICOM series as people have them: found in folders and zips, checked, read as volumes in HU."""
