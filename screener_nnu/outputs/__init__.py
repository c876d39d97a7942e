"""What a prediction writes beside the map: findings, DICOM objects, pages, a table of the scans."""
