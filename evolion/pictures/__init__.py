"""The pictures and the page of a comparison, made from its report and its table."""
