"""What a person looks at: pages and pictures about data and runs."""
