"""The comparison as one self-contained page: tables, plots drawn here as SVG, and the little script that joins them."""
