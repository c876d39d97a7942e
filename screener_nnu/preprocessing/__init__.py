"""From a raw CT to a case: orientation, body, resampling, equalisation, files."""
