"""What makes sessions at home in a framework: one thin file each, with no logic of its own."""
