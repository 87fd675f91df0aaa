"""What each notebook computes, a module for each: the frames it shows, and the verdict it ends with (``judge``)."""
