"""What people see: tables, sizes, ages. Pure: data in, text out."""
