"""Values as text and as arguments. Nothing here runs anything."""
