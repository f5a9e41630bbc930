"""What is searched: spaces, knobs, candidates, and how knobs expand into layers."""
