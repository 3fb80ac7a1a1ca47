"""A run's second home, in an object store or another folder, for machines that are lost with their disks."""
