"""`remask view`: a local web page of the runs in a folder. It only reads."""
